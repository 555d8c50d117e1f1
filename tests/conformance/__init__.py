"""Other people's tests and clients, run against what is ours."""
