`tcp:127.0.0.1:8080` and `tcp:[::1]:8080` are understood as listeners and targets.
