"""Bringing a restore point back: what it holds, what of it is to be made here, in which order, and the making."""
