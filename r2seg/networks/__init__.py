"""Networks: pure torch modules behind one contract. They know no config, file or command."""
