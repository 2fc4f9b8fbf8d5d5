# For type checkers and editors: what `__getattr__` in __init__.py imports on first use.
from . import cluster as cluster
from . import comparison as comparison
from . import config as config
from . import data as data
from . import errors as errors
from . import evaluation as evaluation
from . import files as files
from . import hashing as hashing
from . import losses as losses
from . import models as models
from . import networks as networks
from . import ops as ops
from . import planning as planning
from . import plotting as plotting
from . import recipes as recipes
from . import runner as runner
from . import samplers as samplers
from . import signals as signals
from . import training as training
from . import types as types
from .runner.trained_run import open_run as open_run
from .runner.training_call import train as train

__version__: str
