"""What the command line does: prepare homes, run the platform, look at it. No output here."""
