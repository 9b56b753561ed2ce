"""What runs inside worker processes, and in the template process they are forked from. No gRPC, no store."""
