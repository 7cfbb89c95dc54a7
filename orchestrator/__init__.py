"""dnctl: trains DenseNets on clusters that can't be trusted, with results that can."""

__version__ = "0.1.0"
