"""How a Redis is reached: connections of our own, scripts, and calls that leave together."""
