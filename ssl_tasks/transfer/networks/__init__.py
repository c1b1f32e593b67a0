"""How strategies train networks: the loop, heads, what is frozen, grown or added."""
