"""The figures of the house: sizes, circles, owners, and the trips of a datagram."""
