"""Progress displays for terminals and logs, and the events that worker processes send to their parent."""
