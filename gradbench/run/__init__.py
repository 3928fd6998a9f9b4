"""One run: what it is asked for, its trials, what every detector gives, and what is kept."""
