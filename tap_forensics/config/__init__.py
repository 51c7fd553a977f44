"""Environment → settings, also for one tenant of several."""
