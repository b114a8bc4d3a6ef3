"""What runs inside the sandbox. Uses the standard library only, and pytest where tests are written for it."""
