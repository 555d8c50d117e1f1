"""Tests for :mod:`twisted_net.coap.peers`."""
