"""Open connections and in-flight requests, and how they are ended."""
