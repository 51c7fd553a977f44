"""Rules that can be said in a sentence, on inputs that nobody would think of."""
