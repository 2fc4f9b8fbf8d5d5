"""The fixtures of the tiny run that these tests share."""

from tests.run_fixtures import (  # noqa: F401
    command,
    compiled_once,
    compiled_programs,
    contents,
    finished,
    process,
    state_hash,
    tiny,
    whole,
)
