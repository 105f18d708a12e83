"""What a finished study tells: its best trial, candidates, and their confirmation."""
