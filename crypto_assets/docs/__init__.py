"""The documentation: prose in Markdown beside this file, and what generates the rest of it.

Belongs here: telling people what the code says of itself. Nothing imports it.
"""
