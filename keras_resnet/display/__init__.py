"""What people see on a terminal and on a picture."""
