"""Running an artifact: engines, sessions, sampling, tokens, generation, chat."""
