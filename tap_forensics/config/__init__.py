"""Environment → settings, and what is one tenant's own."""
