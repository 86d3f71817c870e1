"""The contenders' works: each factory returns a function that does one piece of work."""
