"""Every form of `@task`, as it behaves at run time: which functions may be tasks, and what their calls hold."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, NotRequired, ParamSpec, TypeVar
from uuid import UUID

import msgspec
import pytest
from typing_extensions import TypedDict, Unpack

from taskharbor import (
    AsyncTask,
    Bound,
    Context,
    Harbor,
    PayloadError,
    Registry,
    Signature,
    SyncTask,
    Task,
    TaskDefinitionError,
    task,
)
from taskharbor.codec import JsonCodec
from tests.fixtures import future_tasks
from tests.fixtures.support import untyped

P = ParamSpec("P")
R = TypeVar("R")


class Receipt(msgspec.Struct):
    id: str


class Options(msgspec.Struct):
    tags: list[str] = []


@dataclass
class Address:
    street: str
    lines: list[str] = field(default_factory=list[str])


class Size(TypedDict, total=False):
    width: int
    title: str


class Sized(TypedDict):
    width: int
    title: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: int = 0


UserId = NewType("UserId", int)
Small = Annotated[int, msgspec.Meta(ge=0, le=9)]


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def harbor(registry: Registry) -> Iterator[Harbor]:
    with Harbor("memory://", registry=registry) as opened:
        yield opened


def stored(harbor: Harbor, declared: Any, *args: object, **kwargs: object) -> object:
    """Return the payload that a call stores, decoded as plain data."""
    return msgspec.json.decode(harbor.jobs.get(declared.enqueue(*args, **kwargs).id).payload)


def handed_over(declared: Any, payload: bytes) -> object:
    """Return what the handler returns when it is run on a payload, as a worker does it."""
    definition = declared.definition
    arguments = definition.coder(JsonCodec()).decode_arguments(payload)
    return definition.spread(definition.fn, arguments, ())


# --- with and without parentheses, def and async def


def test_a_bare_decorator_makes_a_task(registry: Registry) -> None:
    def add(x: int, y: int) -> int:
        return x + y

    bare = task(add)
    try:
        assert isinstance(bare, SyncTask)
        assert 3 == bare(1, 2)
    finally:
        from taskharbor import default_registry

        assert bare.definition is default_registry.find(bare.name)


def test_empty_parentheses_make_the_same(registry: Registry) -> None:
    @task(registry=registry)
    def add(x: int, y: int) -> int:
        return x + y

    assert isinstance(add, SyncTask)
    assert isinstance(add, Task)
    assert isinstance(add, Bound)
    assert add.definition is registry.get(add.name)


def test_a_coroutine_function_makes_an_async_task(registry: Registry) -> None:
    @task(registry=registry)
    async def add(x: int, y: int) -> int:
        return x + y

    called = add(1, 2)
    assert isinstance(add, AsyncTask)
    with pytest.raises(StopIteration) as ended:
        called.send(None)
    assert 3 == ended.value.value


def test_a_function_declared_to_return_a_coroutine_makes_an_async_task(registry: Registry) -> None:
    async def inner(x: int) -> str:
        return str(x)

    @task(registry=registry)
    def outer(x: int) -> Coroutine[Any, Any, str]:
        return inner(x)

    assert isinstance(untyped(outer), AsyncTask)
    assert str is outer.definition.reading.returns


def test_the_function_stays_reachable_and_its_name_and_doc_show(registry: Registry) -> None:
    def add(x: int, y: int) -> int:
        """Add two numbers."""
        return x + y

    declared = task(registry=registry)(add)

    assert add is declared.fn
    assert (add, add.__doc__) == (declared.__wrapped__, declared.__doc__)
    assert ("add", add.__qualname__) == (declared.__name__, declared.__qualname__)
    assert f"<SyncTask {declared.name}>" == repr(declared)


# --- a leading context


def test_a_context_is_no_parameter_of_the_call(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def resize(ctx: Context[str], image: int, width: int = 640) -> int:
        return width

    assert {"image": 7, "width": 640} == stored(harbor, resize, 7)
    assert str is resize.definition.reading.deps_type
    assert "(image: int, width: int = 640) -> int" == str(resize.definition.reading.public)


def test_a_plain_context_asks_for_no_dependencies(registry: Registry) -> None:
    @task(registry=registry)
    def tell(ctx: Context) -> str:
        return ctx.job_id

    assert tell.definition.reading.takes_context
    assert type(None) is tell.definition.reading.deps_type


def test_a_positional_only_and_an_annotated_context_are_contexts(registry: Registry) -> None:
    @task(registry=registry)
    def one(ctx: Context[int], /, x: int) -> None: ...

    @task(registry=registry)
    def other(ctx: Annotated[Context[int], "mine"], x: int) -> None: ...

    assert one.definition.reading.takes_context
    assert untyped(other).definition.reading.takes_context


def test_a_context_anywhere_else_is_refused(registry: Registry) -> None:
    def second(x: int, ctx: Context) -> None: ...
    def keyword(*, ctx: Context) -> None: ...
    def many(*ctx: Context) -> None: ...

    for wrong, why in (
        (second, "only injected as the first parameter; move it there"),
        (keyword, "passed as the first positional argument"),
        (many, "passed as the first positional argument"),
    ):
        with pytest.raises(TaskDefinitionError, match=f"parameter 'ctx': .*{why}"):
            task(registry=registry)(untyped(wrong))


def test_calling_a_task_with_a_context_outside_of_a_job_says_what_to_call(registry: Registry) -> None:
    @task(registry=registry)
    def tell(ctx: Context[str], x: int) -> str:
        return f"{ctx.deps} {x}"

    with pytest.raises(Exception, match=r"tell\.fn\(Context\.detached\(deps\), \.\.\.\)"):
        tell(1)
    assert "house 1" == tell.fn(Context.detached("house"), 1)


def test_a_detached_context_answers_everything_a_handler_may_ask() -> None:
    before = datetime.now(UTC)

    ctx = Context.detached({"db": 1}, task="mail.send", attempt=3)

    assert {"db": 1} == ctx.deps
    assert ("mail.send", "default", 3, 5) == (ctx.task, ctx.queue, ctx.attempt, ctx.max_attempts)
    assert (None, {}, False) == (ctx.key, dict(ctx.meta), ctx.cancelled)
    assert before <= ctx.enqueued_at == ctx.run_at <= datetime.now(UTC)
    assert ctx.fence >= 1
    assert f"<Context of job {ctx.job_id} (mail.send, attempt 3)>" == repr(ctx)
    ctx.raise_if_cancelled()


def test_the_metadata_of_a_context_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        untyped(Context.detached(None).meta)["a"] = "b"


# --- defaults


def test_defaults_are_stored_with_the_payload(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def mail(to: str, subject: str = "hello", *, copies: int = 1) -> None: ...

    assert {"to": "a", "subject": "hello", "copies": 1} == stored(harbor, mail, "a")
    assert {"to": "a", "subject": "b", "copies": 2} == stored(harbor, mail, "a", "b", copies=2)
    assert {"to": "a", "subject": "b", "copies": 1} == stored(harbor, mail, subject="b", to="a")


def test_a_payload_from_before_a_parameter_had_come_gets_its_default(registry: Registry) -> None:
    @task(registry=registry)
    def mail(to: str, subject: str = "hello") -> str:
        return f"{to} {subject}"

    assert "a hello" == handed_over(mail, b'{"to":"a"}')


def test_mutable_defaults_are_not_shared_between_jobs(registry: Registry) -> None:
    @task(registry=registry)
    def collect(
        flat: list[int] = [],  # noqa: B006 - that is the point
        deep: list[list[int]] = [[1]],  # noqa: B006
        table: dict[str, list[int]] = {"a": []},  # noqa: B006
        address: Address = Address("x"),  # noqa: B008
        options: Options = Options(),  # noqa: B008
    ) -> Any:
        flat.append(1)
        deep[0].append(2)
        table["a"].append(3)
        address.lines.append("y")
        options.tags.append("t")
        return flat, deep, table, address.lines, options.tags

    expected = ([1], [[1, 2]], {"a": [3]}, ["y"], ["t"])
    assert expected == handed_over(collect, b"{}")
    assert expected == handed_over(collect, b"{}")


def test_a_mutable_default_given_by_the_caller_stays_the_callers(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def collect(names: list[str] = []) -> None: ...  # noqa: B006

    signature = collect.s()
    untyped(untyped(signature.sendable).arguments).names.append("x")

    assert {"names": []} == stored(harbor, collect)


def test_a_default_that_does_not_fit_its_type_is_refused(registry: Registry) -> None:
    def mail(to: str, copies: int = untyped("one")) -> None: ...

    with pytest.raises(
        TaskDefinitionError,
        match=r"parameter 'copies': its default 'one' does not fit its type int .*widen the type or change",
    ):
        task(registry=registry)(mail)


# --- kinds of parameters


def test_keyword_only_and_positional_only_parameters(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def make(a: int, /, b: int, *, c: int, d: int = 4) -> list[int]:
        return [a, b, c, d]

    assert {"a": 1, "b": 2, "c": 3, "d": 4} == stored(harbor, make, 1, 2, c=3)
    assert [1, 2, 3, 4] == handed_over(make, b'{"a":1,"b":2,"c":3}')
    assert [1, 2, 3, 4] == make(1, b=2, c=3)
    for args, kwargs in (((), {"a": 1, "b": 2, "c": 3}), ((1, 2, 3), {}), ((1, 2), {})):
        with pytest.raises(PayloadError, match="cannot be called so"):
            untyped(make).s(*args, **kwargs)


def test_a_keyword_only_parameter_without_default_may_follow_defaults(registry: Registry) -> None:
    @task(registry=registry)
    def make(a: int = 1, *, b: int) -> list[int]:
        return [a, b]

    assert [1, 2] == handed_over(make, b'{"b":2}')


def test_typed_varargs_and_keywords(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def join(first: str, *rest: int, sep: str = ",", **more: float) -> Any:
        return first, rest, sep, more

    assert {"first": "a", "rest": [1, 2], "sep": ";", "more": {"x": 1.5}} == stored(
        harbor, join, "a", 1, 2, sep=";", x=1.5
    )
    assert {"first": "a", "rest": [], "sep": ",", "more": {}} == stored(harbor, join, "a")
    assert ("a", (1, 2), ";", {"x": 1.5}) == handed_over(
        join, b'{"first":"a","rest":[1,2],"sep":";","more":{"x":1.5}}'
    )
    assert ("a", (), ",", {}) == handed_over(join, b'{"first":"a"}')


def test_a_misfit_among_varargs_and_keywords_is_found(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def join(*rest: int, **more: float) -> None: ...

    with pytest.raises(PayloadError) as one:
        untyped(join).enqueue(1, "2")
    with pytest.raises(PayloadError) as other:
        untyped(join).enqueue(x="y")

    assert "$.rest[1]" == one.value.path
    assert other.value.path.startswith("$.more")


def test_keywords_of_a_typed_dict(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def resize(image: int, **size: Unpack[Size]) -> Any:
        return image, size

    assert {"image": 1, "size": {"width": 2}} == stored(harbor, resize, 1, width=2)
    assert {"image": 1, "size": {}} == stored(harbor, resize, 1)
    assert (1, {"width": 2, "title": "t"}) == handed_over(
        resize, b'{"image":1,"size":{"width":2,"title":"t"}}'
    )
    for wrong in ({"height": 2}, {"width": "2"}):
        with pytest.raises(PayloadError):
            untyped(resize).enqueue(1, **wrong)


def test_required_keywords_of_a_typed_dict(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def resize(**size: Unpack[Sized]) -> Any:
        return size

    assert {"size": {"width": 2}} == stored(harbor, resize, width=2)
    with pytest.raises(PayloadError, match="width"):
        untyped(resize).enqueue(title="x")


def test_parameters_may_have_the_names_that_our_own_functions_use(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def odd(
        self: int, cls: int, args: int, kwargs: int, name: int, fn: int, title: int, _private: int = 0
    ) -> None: ...

    sent = {"self": 1, "cls": 2, "args": 3, "kwargs": 4, "name": 5, "fn": 6, "title": 7}

    assert {**sent, "_private": 0} == stored(harbor, odd, **sent)
    assert {**sent, "_private": 0} == stored(harbor, odd, *sent.values())


def test_a_parameter_with_two_leading_underscores_is_refused_in_words(registry: Registry) -> None:
    def old(__x: int) -> None: ...

    with pytest.raises(TaskDefinitionError, match="parameter '__x'"):
        task(registry=registry)(untyped(old))


# --- types


def test_every_supported_kind_of_parameter_crosses_the_wire(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def everything(
        receipt: Receipt,
        address: Address,
        size: Size,
        point: Point,
        user: UserId,
        level: Small,
        mode: Literal["fast", "slow"],
        at: datetime,
        day: date,
        wait: timedelta,
        id: UUID,  # noqa: A002
        price: Decimal,
        data: bytes,
        either: int | str | None,
        nested: dict[str, list[tuple[Point, Receipt | None]]],
    ) -> Any:
        return (
            receipt, address, size, point, user, level, mode, at, day, wait, id, price, data, either, nested,
        )  # fmt: skip

    sent = (
        Receipt("r"),
        Address("s", ["l"]),
        Size(width=3),
        Point(1, 2),
        UserId(9),
        5,
        "fast",
        datetime(2026, 1, 1, 12, tzinfo=UTC),
        date(2026, 1, 1),
        timedelta(seconds=1.5),
        UUID(int=7),
        Decimal("1.50"),
        b"\x00\xff",
        "x",
        {"a": [(Point(1), None), (Point(3, 4), Receipt("q"))]},
    )
    job = harbor.jobs.get(untyped(everything).enqueue(*sent).id)

    assert sent == handed_over(everything, job.payload)


@pytest.mark.parametrize("wrong", [-1, 10, "5", None, 5.5], ids=repr)
def test_a_constraint_is_checked_at_enqueue_with_the_path(
    registry: Registry, harbor: Harbor, wrong: object
) -> None:
    @task(registry=registry)
    def rate(levels: list[Small]) -> None: ...

    with pytest.raises(PayloadError) as caught:
        rate.enqueue(untyped([3, wrong]))

    assert ("$.levels[1]", rate.name) == (caught.value.path, caught.value.task)
    assert f"the arguments of task {rate.name!r} do not fit its signature: {caught.value.reason} at" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (str, UUID(int=1)),
        (str, datetime(2026, 1, 1, tzinfo=UTC)),
        (str, Decimal("1.5")),
        (bytes, "abcd"),
        (float | None, float("nan")),
        (float | None, float("inf")),
        (list[float | None], [1.0, float("nan")]),
        (Receipt, {"id": "x"}),
        (set[int], [1, 2]),
        (int | str, Decimal("1.5")),
        (dict[str, str], {1: "a"}),
        (dict[str, int], {UUID(int=1): 1}),
        (list[dict[str, int]], [{}, {2: 3}]),
    ],
    ids=str,
)
def test_a_value_that_would_arrive_as_something_else_is_refused(
    registry: Registry, harbor: Harbor, kind: object, wrong: object
) -> None:
    def take(x: Any) -> None: ...

    take.__annotations__["x"] = kind
    declared: Any = untyped(task(registry=registry))(take)

    with pytest.raises(PayloadError) as caught:
        declared.enqueue(wrong)

    assert caught.value.path.startswith("$.x")


@pytest.mark.parametrize(
    ("kind", "right"),
    [
        (float, 1),
        (float | None, None),
        (list[int], []),
        (dict[int, str], {1: "a"}),
        (Point, Point(1)),
        (Address, Address("x")),
        (frozenset[str], frozenset({"a"})),
        (datetime, datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        (Decimal, Decimal("NaN")),
    ],
    ids=str,
)
def test_a_value_that_arrives_as_it_is_passes(
    registry: Registry, harbor: Harbor, kind: object, right: object
) -> None:
    def take(x: Any) -> None: ...

    take.__annotations__["x"] = kind
    declared: Any = untyped(task(registry=registry))(take)

    assert declared.enqueue(right).created


def test_never_returning_is_returning_nothing(registry: Registry) -> None:
    from typing import Never, NoReturn

    @task(registry=registry)
    def one() -> NoReturn:
        raise ValueError

    @task(registry=registry)
    def other() -> Never:
        raise ValueError

    assert type(None) is one.definition.reading.returns is other.definition.reading.returns


# --- annotations as strings


def test_a_module_with_postponed_annotations_is_read_like_any_other() -> None:
    parcel = future_tasks.Parcel("ann")

    with Harbor("memory://", registry=future_tasks.registry) as harbor:
        assert {"parcel": {"to": "ann", "weight": 1.0}, "within": "PT5S", "level": 5} == stored(
            harbor, future_tasks.send, parcel, within=timedelta(seconds=5)
        )
        with pytest.raises(PayloadError, match="<= 9"):
            future_tasks.send.enqueue(parcel, level=10)


def test_a_message_shows_the_signature_without_quotes() -> None:
    with pytest.raises(PayloadError) as caught:
        untyped(future_tasks.send).s(5, 6)

    assert (
        "its signature is tests.fixtures.future_tasks.send(parcel: Parcel, *, "
        "within: timedelta | None = None, level: "
    ) in str(caught.value).replace("datetime.", "").replace("tests.fixtures.future_tasks.Parcel", "Parcel")
    assert "'parcel" not in str(caught.value)
    assert ": '" not in str(caught.value)


def test_a_type_imported_for_checkers_alone_is_refused() -> None:
    with pytest.raises(
        TaskDefinitionError, match=r"names 'Fraction', .*import it outside `if TYPE_CHECKING:`"
    ):
        task(registry=Registry())(future_tasks.guarded)


def test_a_type_defined_below_the_task_is_refused_until_it_is_there() -> None:
    assert "names 'Later', which is not defined" in str(future_tasks.too_early)
    assert future_tasks.Later("x") == handed_over(future_tasks.late, b'{"later":{"to":"x"}}')


def test_string_annotations_find_the_local_types_of_where_they_stand(registry: Registry) -> None:
    class Local(msgspec.Struct):
        x: int

    @task(registry=registry)
    def bare(value: "Local") -> "Local":
        return value

    @task(registry=registry, queue="q")
    def nested(value: "list[Local] | None" = None) -> "Local | None":
        return None

    assert Local(1) == handed_over(bare, b'{"value":{"x":1}}')
    assert handed_over(nested, b'{"value":[{"x":1}]}') is None


@pytest.mark.parametrize("text", ["not a type(", "msgspec.Nope", "1 +", "int[str]"])
def test_a_string_that_is_no_type_is_refused_in_words(registry: Registry, text: str) -> None:
    def take(x: Any) -> None: ...

    take.__annotations__["x"] = text

    with pytest.raises(TaskDefinitionError, match="test_a_string_that_is_no_type"):
        task(registry=registry)(untyped(take))


# --- what cannot be a task


class Callee:
    def __call__(self, x: int) -> int:
        return x

    def method(self, x: int) -> int:
        return x

    @classmethod
    def of_class(cls, x: int) -> int:
        return x

    @staticmethod
    def static(x: int) -> int:
        return x


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


def plain(x: int) -> int:
    return x


# Kept from type checkers, which would refuse them as they should.
UNTYPED: dict[str, Any] = {"lambda": eval("lambda x: x")}  # noqa: S307
exec(  # noqa: S102
    """
def first(x) -> None: ...
def second(x: int, y=1) -> None: ...
def many(*rest) -> None: ...
def result(x: int): ...
""",
    UNTYPED,
)


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        (UNTYPED["lambda"], "a lambda"),
        (Callee, "a class"),
        (generator, "a generator function"),
        (async_generator, "a generator function"),
        (Callee.__dict__["of_class"], "a classmethod"),
        (5, "a int"),
        ("mail.send", "name"),
        (Callee(), "Callee"),
        (functools.partial(plain, 1), "partial"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_function_is_refused(registry: Registry, thing: object, told: str) -> None:
    with pytest.raises(TaskDefinitionError, match=told):
        task(untyped(thing))


def test_a_method_is_refused_for_its_self(registry: Registry) -> None:
    with pytest.raises(TaskDefinitionError, match="parameter 'self': it has no type"):
        task(registry=registry)(untyped(Callee.method))


def test_bound_and_static_methods_are_functions(registry: Registry, harbor: Harbor) -> None:
    for method in (Callee().method, Callee.of_class, Callee.static):
        declared = task(registry=registry)(method)

        assert {"x": 1} == stored(harbor, declared, 1)
        assert 1 == declared(1)


def test_a_static_method_may_be_a_task_within_its_class(registry: Registry) -> None:
    class Mailer:
        @staticmethod
        @task(registry=registry)
        def outside(x: int) -> int:
            return x

        @task(registry=registry)
        @staticmethod
        def inside(x: int) -> int:
            return x

    assert isinstance(Mailer.outside, SyncTask)
    assert isinstance(Mailer.inside, SyncTask)
    assert (1, 2) == (Mailer.outside(1), Mailer().inside(2))
    assert Mailer.outside.name.endswith("Mailer.outside")


def test_untyped_parameters_and_results_are_refused(registry: Registry) -> None:
    for wrong, told in (
        (UNTYPED["first"], "parameter 'x': it has no type; give it one"),
        (UNTYPED["second"], "parameter 'y': it has no type; give it one"),
        (UNTYPED["many"], "parameter 'rest': it has no type; give it one"),
        (UNTYPED["result"], "does not say what it returns; write `-> None`, or the type"),
    ):
        with pytest.raises(TaskDefinitionError, match=told):
            task(registry=registry)(untyped(wrong))


@pytest.mark.parametrize("swallower", [object, Any, Annotated[object, 1]], ids=str)
def test_a_first_parameter_that_a_context_would_fit_too_is_refused(
    registry: Registry, swallower: object
) -> None:
    def take(x: Any, y: Any) -> None: ...

    take.__annotations__["x"] = swallower

    with pytest.raises(TaskDefinitionError, match=r"first parameter is typed .*name its type"):
        task(registry=registry)(untyped(take))


def test_any_is_welcome_behind_the_first_parameter(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def log(level: int, data: Any, *more: Any) -> None: ...

    assert {"level": 1, "data": {"a": [1, None]}, "more": ["x", 2]} == stored(
        harbor, log, 1, {"a": [1, None]}, "x", 2
    )


def test_two_untagged_structs_in_a_union_are_refused(registry: Registry) -> None:
    class Other(msgspec.Struct):
        id: str

    def take(x: Receipt | Other) -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"parameter 'x': .*must be tagged"):
        task(registry=registry)(take)


@pytest.mark.parametrize("kind", [Callable[[], None], Iterator[int], Awaitable[int], Callee], ids=str)
def test_a_type_without_a_codec_is_refused_naming_the_way_out(registry: Registry, kind: object) -> None:
    def take(x: Any) -> None: ...

    take.__annotations__["x"] = kind

    with pytest.raises(
        TaskDefinitionError, match=r"parameter 'x': its type .* has no codec, .*register_type\("
    ):
        task(registry=registry)(untyped(take))


def test_a_result_without_a_codec_is_refused(registry: Registry) -> None:
    def make() -> Callee:
        return Callee()

    with pytest.raises(TaskDefinitionError, match="result: its type Callee has no codec"):
        task(registry=registry)(make)


# --- decorators above and below


def traced(fn: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        seen.append(fn.__name__)
        return fn(*args, **kwargs)

    return wrapper


def awaited(fn: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R]]:
    @functools.wraps(fn)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        return await fn(*args, **kwargs)

    return wrapper


seen: list[str] = []


def test_a_decorator_below_task_runs_with_each_call(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    @traced
    def add(x: int, y: int = 2) -> int:
        return x + y

    seen.clear()

    assert {"x": 1, "y": 2} == stored(harbor, add, 1)
    assert 3 == add(1) == handed_over(add, b'{"x":1}')
    assert ["add", "add"] == seen


def test_a_decorator_above_task_leaves_the_task_within(registry: Registry) -> None:
    @traced
    @task(registry=registry)
    def add(x: int) -> int:
        return x

    assert 1 == add(1)
    assert isinstance(untyped(add).__wrapped__, SyncTask)


def test_an_async_decorator_below_task_keeps_it_async(registry: Registry) -> None:
    @task(registry=registry)
    @awaited
    async def add(x: int) -> int:
        return x

    assert isinstance(add, AsyncTask)


def test_a_plain_wrapper_around_a_coroutine_function_keeps_it_async_or_is_refused(
    registry: Registry,
) -> None:
    """Type checkers see an AsyncTask; a SyncTask whose every job fails would be a surprise."""

    async def add(x: int) -> int:
        return x

    try:
        declared = task(registry=registry)(traced(add))
    except TaskDefinitionError:
        return
    assert isinstance(untyped(declared), AsyncTask)


def test_a_decorator_that_hides_the_signature_is_refused(registry: Registry) -> None:
    def hide(fn: Callable[P, R]) -> Callable[P, R]:
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            return fn(*args, **kwargs)

        return wrapper

    with pytest.raises(TaskDefinitionError):
        task(registry=registry)(hide(plain))


# --- signatures


def test_s_makes_a_call_that_is_not_yet_sent(registry: Registry, harbor: Harbor) -> None:
    @task(registry=registry)
    def add(x: int, y: int = 2) -> int:
        return x + y

    signature = add.s(1)

    assert isinstance(signature, Signature)
    assert f"<Signature of {add.name}>" == repr(signature)
    assert [] == list(harbor.jobs.find())
    assert signature.enqueue().id != signature.enqueue().id


def test_types_are_checked_when_a_signature_is_sent_and_the_shape_when_it_is_made(
    registry: Registry, harbor: Harbor
) -> None:
    @task(registry=registry)
    def add(x: int) -> int:
        return x

    signature = add.s(untyped("1"))

    with pytest.raises(PayloadError, match=r"Expected `int`, got `str` at \$\.x"):
        signature.enqueue()
    with pytest.raises(
        PayloadError, match=r"missing a required argument: 'x'; its signature is .*add\(x: int\)"
    ):
        untyped(add).s()
