"""What can be told about the platform itself: which of its processes live, and how many."""
