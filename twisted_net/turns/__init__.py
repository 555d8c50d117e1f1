"""Turns: what is shared of a reactor's turns, by connections, layers and long work; internal."""
