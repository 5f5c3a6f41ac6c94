"""How one of our processes starts, is observed, is secured and stops. Knows no user, movie, rating or tensor."""
