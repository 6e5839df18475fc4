"""Jobs, which are accepted with 202: the Job row, the job types, and the exchange with the data plane."""
