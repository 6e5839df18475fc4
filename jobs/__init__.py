"""Work accepted with 202: the Job row, the types of job there are, and their way between the planes."""
