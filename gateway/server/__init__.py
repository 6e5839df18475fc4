"""uvicorn with the bounds that it lacks."""
