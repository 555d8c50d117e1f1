"""
A gateway of devices: ``twistd -n net --config gateway.toml`` in this folder.

Devices publish readings over plain CoAP, ``POST /topics/reading.dev-7 {"t": 21.5}``, and observe
their configuration, ``GET /topics/config.dev-7``. Dashboards log in, and ``SUBSCRIBE alarm.>``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from twisted_net.commands import Fields
from twisted_net.config import Record
from twisted_net.service import Application, ApplicationContext
from twisted_net.topics import TopicMessage


class GatewaySettings(Record, frozen=True):
    devices: Annotated[int, Meta(ge=1, description="devices that are watched")] = 10_000
    silent: Annotated[float, Meta(gt=0, description="seconds until a device is missed")] = 60.0
    hot: Annotated[float, Meta(description="degrees from which there is an alarm")] = 30.0


class Rate(msgspec.Struct):
    rate: Annotated[float, Meta(gt=0, le=3600)]


Device = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
app = Application("gateway", GatewaySettings)
gateway: list[ApplicationContext] = []
seen: dict[str, float] = {}  # when each device was heard, by the reactor's clock


class Readings:
    """Hears all devices, on whichever door they publish."""

    def take(self, message: TopicMessage) -> bool:
        context, device = gateway[-1], message.topic.removeprefix("reading.")
        if device not in seen:
            if len(seen) >= context.settings.devices:
                return False
            alarm(device, {"state": "here"})
        seen[device] = context.reactor.seconds()
        value = message.value.get("t") if isinstance(message.value, dict) else None
        if isinstance(value, int | float) and value >= context.settings.hot:
            alarm(device, {"state": "hot", "t": value})
        return True


def alarm(device: str, what: dict[str, object]) -> None:
    gateway[-1].topics.publish(f"alarm.{device}", what)


@app.start
def start(context: ApplicationContext) -> None:
    gateway.append(context)
    context.topics.subscribe(Readings(), "reading.*")
    context.every(context.settings.silent / 4, miss)


def miss() -> None:
    due = gateway[-1].reactor.seconds() - gateway[-1].settings.silent
    for device in [device for device, at in seen.items() if at < due]:
        del seen[device]
        alarm(device, {"state": "gone"})


@app.commands.command()
def configure(device: Device, rate: Rate) -> Fields:
    """Give a device its configuration, now or when it comes back."""
    value = msgspec.to_builtins(rate)
    return Fields(receivers=gateway[-1].topics.publish(f"config.{device}", value, retain=True))
