"""The matrix inverse for JAX: one rule, every transformation, fast on batches."""

from jaxinv._inv import inv as inv
from jaxinv._jacobian import inv_jacobian as inv_jacobian

__version__ = "0.1.0"
