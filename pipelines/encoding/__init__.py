"""The Encoder protocol, and the frozen models that encoders are made of."""
