"""The matrix inverse for JAX: one rule, every transformation, fast on batches."""

from jaxinv._inv import inv as inv
from jaxinv._inv_ex import InvEx as InvEx
from jaxinv._inv_ex import inv_ex as inv_ex
from jaxinv._inv_logdet import InvLogdet as InvLogdet
from jaxinv._inv_logdet import inv_logdet as inv_logdet
from jaxinv._inv_sharded import InvSharded as InvSharded
from jaxinv._inv_sharded import inv_sharded as inv_sharded
from jaxinv._jacobian import inv_jacobian as inv_jacobian

__version__ = "0.1.0"
