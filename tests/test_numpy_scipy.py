"""The tests that NumPy and SciPy ship for their `inv` (and NumPy for `np.matrix`), with `jaxinv.inv` in its place."""

import importlib
import os
import warnings
from unittest import mock

import numpy as np
import pytest

import jaxinv

# Of SciPy's tests, those that fail, each with what it must raise; the end of this file has what we do instead.
# Of NumPy's there is none.
EXCEPTIONS = {
    "test_overwrite_a[True]": (AssertionError, "the result lies in the memory of a: JAX arrays are immutable"),
    "test_dtypes[float16]": (AssertionError, "float16 gives float32: we keep float16"),
    "test_dtypes[longdouble]": (TypeError, "longdouble gives float64: JAX has no longdouble"),
    "test_dtypes[clongdouble]": (TypeError, "clongdouble gives complex128: JAX has no clongdouble"),
    "test_wrong_assume_a": (ValueError, "the message is another"),
    "test_ill_cond": (pytest.fail.Exception, "LinAlgWarning for an ill-conditioned matrix: values never warn"),
    "test_diagonal": (pytest.fail.Exception, "LinAlgWarning for an ill-conditioned matrix: values never warn"),
}
# Permissions, which an implementation need not use.
IGNORED_OPTIONS = {"overwrite_a", "check_finite"}


def load_class(module, name):
    """A class of tests; some distributions package them apart or leave them out."""
    # Their marks, `slow` for one, are not among ours, and --strict-markers would refuse the import.
    any_mark = mock.patch.object(pytest, "mark", pytest.MarkGenerator(_ispytest=True))
    try:
        with any_mark, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the matrix subclass", PendingDeprecationWarning)  # it is their subject
            return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"these versions of NumPy and SciPy have no {module}.{name}: {error}", allow_module_level=True)


def as_theirs(a, inverse=jaxinv.inv, **options):
    """Our inverse as NumPy or SciPy would give it: of lists too, in the class of `a`, and raising where singular."""
    options = {name: value for name, value in options.items() if name not in IGNORED_OPTIONS}
    Y = np.asarray(inverse(np.asarray(a), **options))
    if not np.isfinite(Y).all():  # so that their tests of singular matrices assert just this
        raise np.linalg.LinAlgError("inf or nan")
    return Y.view(type(a)) if isinstance(a, np.ndarray) else Y


class WithOurs:
    @pytest.fixture(autouse=True)
    def ours(self, request, monkeypatch):
        ours = mock.Mock(wraps=as_theirs)
        monkeypatch.setattr(self.theirs, ours)
        exception = EXCEPTIONS.get(request.node.name, EXCEPTIONS.get(request.node.originalname))
        if exception:
            raises, reason = exception
            request.applymarker(pytest.mark.xfail(raises=raises, reason=reason))  # strict: it must fail
        yield
        assert ours.called


class TestNumPy(WithOurs, load_class("numpy.linalg.tests.test_linalg", "TestInv")):
    theirs = "numpy.linalg.inv"


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")  # it is their subject
class TestNumPyMatrix(WithOurs, load_class("numpy.matrixlib.tests.test_matrix_linalg", "TestInvMatrix")):
    theirs = "numpy.linalg.inv"
    test_generalized_sq_cases = test_generalized_empty_sq_cases = None  # without cases: an np.matrix is no batch


class TestSciPy(WithOurs, load_class("scipy.linalg.tests.test_basic", "TestInv")):
    theirs = "scipy.linalg.tests.test_basic.inv"


@pytest.mark.parametrize(
    ("suite", "name"),
    [
        (TestNumPy, "test_sq_cases"),
        (TestNumPy, "test_generalized_sq_cases"),
        (TestNumPyMatrix, "test_sq_cases"),
        (TestSciPy, "test_simple"),
        (TestSciPy, "test_random_complex"),
    ],
)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_slightly_wrong_inverse_fails(suite, name, monkeypatch):
    wrong = lambda a: 1.0001 * np.asarray(jaxinv.inv(a))
    monkeypatch.setattr(suite.theirs, lambda a: as_theirs(a, wrong))
    with pytest.raises(AssertionError, match=r"not (almost )?equal"):
        getattr(suite(), name)()


def test_instead_argument_stays():
    X = np.asfortranarray([[2.0, 3.0], [1.0, 2.0]])
    Y = np.asarray(jaxinv.inv(X))
    assert not np.shares_memory(X, Y)
    np.testing.assert_array_equal(X, [[2.0, 3.0], [1.0, 2.0]])


def test_instead_float16_kept():
    assert jaxinv.inv(np.eye(2, dtype=np.float16)).dtype == np.float16


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_instead_long_double_refused(dtype):
    with pytest.raises(TypeError):
        jaxinv.inv(np.eye(2, dtype=dtype))


def test_instead_ill_conditioned_without_warning():
    X = np.stack([np.diag([1.0, 1e-20]), np.eye(2)])
    np.testing.assert_allclose(jaxinv.inv(X), np.stack([np.diag([1.0, 1e20]), np.eye(2)]), rtol=1e-15)


def test_instead_singular_not_finite():
    X = np.stack([np.ones((2, 2)), np.arange(4.0).reshape(2, 2)])
    Y = np.asarray(jaxinv.inv(X))
    assert not np.isfinite(Y[0]).any()
    np.testing.assert_array_equal(Y[1], [[-1.5, 0.5], [1.0, 0.0]])
