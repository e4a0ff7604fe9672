"""Synthetic messages for the demo: what customers write, and what scammers write."""

from __future__ import annotations

import numpy as np

_ORDINARY = (
    "Thanks for the order from {merchant}, it arrived {day} and everything fits.",
    "Could you please send me the invoice for my purchase at {merchant} {day}?",
    "I bought a few things at {merchant} {day}, just saving the receipt here.",
    "Hi, is the shop {merchant} open {day}? I would like to pick up my order.",
    "Lunch with {name} at {merchant} {day}, we split the bill.",
    "My parcel from {merchant} comes {day}, {name} will be home to take it.",
    "The table at {merchant} is booked for {day}, see you there {name}.",
    "Please add the warranty card for the item from {merchant}, thank you.",
    "Refund for the broken cup was quick, greetings from {name}.",
    "{name} asked me to buy milk and bread at {merchant} {day}.",
    "I changed my delivery address last week, the order {day} is for {name}.",
    "Great service at {merchant}, the card payment went through at once.",
)
_SCAM = (
    "URGENT: your account is suspended! Verify your card now at {link} or lose access.",
    "You have WON a prize of {prize} euro! Send your PIN and code to claim {day}.",
    "Final warning: unpaid fee at {merchant}. Pay immediately by gift card: {link}",
    "Bank security: unusual login. Reply with the one-time code to block it, {link}",
    "Dear customer, move your money to the safe account {day} or it will be seized.",
    "Double your bitcoin {day}! Guaranteed profit of {prize} euro, register: {link}",
    "Hello mum, my phone is broken, new number. Please transfer {prize} euro at once!",
    "CONGRATULATIONS winner! Free voucher for {merchant}, confirm card data {link}",
    "Your parcel is held by customs, pay 2.99 now with your card at {link}",
    "Tech support here: we found a virus, allow remote access and pay {prize} euro.",
)
_NAMES = ("Anna", "Ben", "Carla", "David", "Elif", "Farid", "Greta", "Hugo", "Ines")
_DAYS = ("today", "tomorrow", "on Monday", "on Friday", "this week", "this evening")


def message(rng: np.random.Generator, *, merchant: str, scam: bool = False) -> str:
    """One message about a payment at `merchant`, in the wording of a scam or not."""
    templates = _SCAM if scam else _ORDINARY
    template = templates[rng.integers(len(templates))]
    number = int(rng.integers(100, 9999))
    return template.format(
        merchant=merchant,
        name=_NAMES[number % len(_NAMES)],
        day=_DAYS[number % len(_DAYS)],
        prize=number,
        link=f"http://pay-{number:x}.example/verify",
    )
