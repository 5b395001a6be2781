"""Many runs from one command: each in a process and a folder of its own, resumable as a whole."""
