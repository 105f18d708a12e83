"""Killing the processes of a study at named steps and at random moments, and comparing what comes of it."""
