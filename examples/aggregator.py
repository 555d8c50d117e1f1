"""
An aggregator of web APIs: ``twistd -n net --commands aggregator:app`` in this folder.

``PRICES bread`` asks all shops that ``[app.aggregator]`` names at once, each within a time limit.
Answers are cached as the shops say, and changes are published to ``prices.<product>``.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta
from twisted.internet.defer import Deferred, gatherResults

from twisted_net.commands import Fields
from twisted_net.config import Record
from twisted_net.errors import FetchError
from twisted_net.service import Application, ApplicationContext

Product = Annotated[str, Meta(pattern="^[a-z0-9-]{1,32}$")]


class AggregatorSettings(Record, frozen=True):
    shops: Annotated[tuple[str, ...], Meta(description="URLs, with {} for the product")] = ()
    timeout: Annotated[float, Meta(gt=0, description="seconds for each shop")] = 2.0


app = Application("aggregator", AggregatorSettings)
contexts: list[ApplicationContext] = []
app.start(contexts.append)


async def ask(url: str) -> object:
    """Return the answer of one shop, or in a word why there is none."""
    context = contexts[-1]
    try:
        response = await context.http.get(url, timeout=context.settings.timeout)
        return response.json() if response.status == 200 else f"status {response.status}"
    except FetchError as error:
        return error.code


@app.commands.command(safe=True)
async def prices(product: Product) -> Fields:
    """Ask all shops for the price of a product."""
    context = contexts[-1]
    urls = [shop.replace("{}", product) for shop in context.settings.shops]
    found = await gatherResults([Deferred.fromCoroutine(ask(url)) for url in urls])
    answer = {"product": product, "prices": found}
    last = context.topics.last(f"prices.{product}")
    if last is None or last.value != answer:
        context.topics.publish(f"prices.{product}", answer, retain=True)
    return Fields(**answer)
