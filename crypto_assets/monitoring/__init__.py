"""Is it to be trusted? Looking at a home, telling what is wrong, and telling someone."""
