"""The parts of training that know nothing of Ray: loop, optimizers, checkpoints, collectives, health."""
