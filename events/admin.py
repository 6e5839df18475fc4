"""Channels and dead letters in the admin."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextInputWidget

from events import (
    connector_admin,  # noqa: F401 - registers its pages
    letter_jobs,
    letters,
    registry_admin,  # noqa: F401 - registers its pages
    services,
    subscription_admin,  # noqa: F401 - registers its pages
)
from events.letter_job_models import LetterAction
from events.models import Channel, DeadLetter
from events.services import PROTOCOLS
from gateway.schemas.registered import subject_named
from operators.admin import ReadOnlyAdmin, ServiceAdmin, ServiceForm, action, chips, display
from operators.form_fields import JsonField

EXPLAINED = {
    LetterAction.REDRIVE: "Each event goes back where it failed. Those that cannot be redriven are kept.",
    LetterAction.DISCARD: "Their events are deleted, and cannot be restored.",
}
REFUSED_SHOWN = 5
_RETENTION = {"max_age_s": "Maximum age (s)", "max_events": "Maximum events", "max_bytes": "Maximum bytes"}


def how_many_letters(request: HttpRequest) -> str:
    """Return the number of dead letters, for the navigation; empty if there are none."""
    count = DeadLetter.objects.count()
    return f"{count:,}" if count else ""


class ChannelForm(ServiceForm):
    """The form of a channel."""

    schema = JsonField(
        empty=lambda: None,
        rows=14,
        help_text='A JSON Schema, or {"subject": "…"} of the registry. If empty, every JSON value is accepted.',
    )
    parameters = JsonField(
        empty=dict,
        rows=3,
        help_text='Values that parameters of the address may have: {"deviceId": {"enum": ["a", "b"]}}. If empty, all.',
    )
    protocols = forms.MultipleChoiceField(
        choices=[(name, name) for name in PROTOCOLS],
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="If none is selected, all are allowed.",
    )
    max_age_s, max_events, max_bytes = (
        forms.IntegerField(required=False, min_value=1, label=label, widget=UnfoldAdminTextInputWidget)
        for label in _RETENTION.values()
    )

    class Meta:
        model = Channel
        fields = ("address", "title", "content_type", "on_invalid", "protocols", "parameters", "schema")
        help_texts: ClassVar[dict[str, str]] = {
            "address": "Levels separated by slashes; a level may be a {parameter}, and the last a {rest...}.",
            "content_type": "json, text, bytes, or a media type such as image/jpeg.",
            "on_invalid": "The publisher is refused in both cases; a dead letter is also kept.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in _RETENTION:
            if name in self.fields:
                self.fields[name].initial = (self.instance.retention or {}).get(name)

    def fields_for_service(self) -> dict[str, Any]:
        """Collect the fields of the retention."""
        retention = {name: self.cleaned_data[name] for name in _RETENTION if self.cleaned_data.get(name) is not None}
        fields = {name: value for name, value in super().fields_for_service().items() if name not in _RETENTION}
        if self.instance._state.adding or retention != self.instance.retention:
            fields["retention"] = retention
        return fields

    def create(self, fields: dict[str, Any]) -> Channel:
        """Create the channel."""
        return services.create_channel(**fields, by=self.by)

    def update(self, row: Channel, fields: dict[str, Any]) -> Channel:
        """Change the channel."""
        return services.update_channel(row, **fields, by=self.by)


@admin.register(Channel)
class Channels(ServiceAdmin):
    """Named, durable logs of events."""

    form: type[forms.ModelForm[Any]] = ChannelForm
    list_display = (
        "address",
        "title",
        "content_type",
        "shown_schema",
        "on_invalid",
        "shown_retention",
        "shown_protocols",
    )
    list_filter = ("on_invalid",)
    search_fields = ("address", "title")
    ordering = ("address",)
    delete_row = staticmethod(services.delete_channel)
    fieldsets = (
        (None, {"fields": ("address", "title", "content_type", "protocols", "parameters", "imported_from")}),
        ("Retention", {"fields": (tuple(_RETENTION),)}),
        ("Schema", {"fields": ("on_invalid", "schema")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Channel | None = None) -> tuple[str, ...]:
        """Return the fields that cannot be changed."""
        return ("address", "imported_from") if obj else ("imported_from",)

    @display(description="Schema")
    def shown_schema(self, channel: Channel) -> Any:
        """Return what kind of schema it has."""
        subject = subject_named(channel.schema)
        return chips([subject or "JSON Schema"] if channel.schema is not None else [])

    @display(description="Retention")
    def shown_retention(self, channel: Channel) -> Any:
        """Return the bounds of what is kept."""
        return chips([f"{name} {value:,}" for name, value in channel.retention.items()])

    @display(description="Protocols")
    def shown_protocols(self, channel: Channel) -> Any:
        """Return the allowed protocols."""
        return chips(channel.protocols or ["all"])


@admin.register(DeadLetter)
class DeadLetters(ReadOnlyAdmin):
    """Events that could not be accepted or delivered, to redrive or discard."""

    list_display = ("address", "shown_reason", "detail", "consumer", "protocol", "attempts", "event_bytes", "dead_at")
    list_filter = ("reason", "protocol", "channel")
    search_fields = ("address", "consumer", "detail")
    ordering = ("-id",)
    actions = ("redrive_selected", "discard_selected")
    actions_detail = ("redrive_letter", "discard_letter")
    fieldsets = (
        (None, {"fields": ("channel", "address", "dead_at", "attempts")}),
        ("Reason", {"fields": ("reason", "detail", "pointer", "consumer", "protocol")}),
        ("Event", {"fields": ("shown_event",)}),
    )
    readonly_fields = ("shown_event",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeadLetter]:
        """Return the letters; their events are read where they are shown or redriven."""
        rows: QuerySet[DeadLetter] = super().get_queryset(request)
        return rows.defer("event")

    def has_redrive_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the user may redrive dead letters."""
        return request.user.has_perm("events.change_deadletter")

    def has_discard_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        """Return whether the user may discard dead letters."""
        return request.user.has_perm("events.delete_deadletter")

    @display(description="Reason", ordering="reason", label=True)
    def shown_reason(self, letter: DeadLetter) -> str:
        """Return the reason."""
        return letter.reason

    @display(description="Event")
    def shown_event(self, letter: DeadLetter) -> Any:
        """Show the event as text."""
        return format_html('<pre class="plain-json">{}</pre>', json.dumps(letter.event, indent=2, ensure_ascii=False))

    @action(description="Redrive: publish again", permissions=["redrive"], icon="replay")
    def redrive_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse:
        """Redrive the letters as a job, after confirmation."""
        return self._settle(request, queryset, LetterAction.REDRIVE)

    @action(description="Discard", permissions=["discard"], icon="delete")
    def discard_selected(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> HttpResponse:
        """Discard the letters as a job, after confirmation."""
        return self._settle(request, queryset, LetterAction.DISCARD)

    @action(
        description="Redrive", permissions=["redrive"], url_path="redrive", icon="replay", variant=ActionVariant.PRIMARY
    )
    def redrive_letter(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Redrive one letter, after confirmation."""
        return self._one(request, object_id, letters.redrive, "Redrive")

    @action(
        description="Discard", permissions=["discard"], url_path="discard", icon="delete", variant=ActionVariant.DANGER
    )
    def discard_letter(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Discard one letter, after confirmation."""
        return self._one(request, object_id, letters.discard, "Discard")

    def _settle(
        self, request: HttpRequest, queryset: QuerySet[DeadLetter], letter_action: LetterAction
    ) -> HttpResponse:
        """Ask what to do with the selected letters; once confirmed, start the job and show its progress."""
        ids = self.confirmed(request)
        if ids is not None:
            selection = {"ids": [int(one) for one in ids if one.isascii() and one.isdigit()]}
            job = letter_jobs.start_job(action=letter_action, selection=selection, by=request.user.get_username())
            return HttpResponseRedirect(reverse("letter-job", args=[job.id]))
        selected = list(queryset.order_by("id").values_list("pk", flat=True)[: letter_jobs.IDS_MAX + 1])
        if len(selected) > letter_jobs.IDS_MAX:
            raise ValidationError(
                f"Select at most {letter_jobs.IDS_MAX:,} dead letters; the dashboards settle all that match a filter."
            )
        found, verb = letter_jobs.preview({"ids": selected}), letter_jobs.WORDS[letter_action]
        return self.ask(  # type: ignore[no-any-return]
            request,
            selected,
            title=f"{verb} {found['total']:,} dead {'letter' if found['total'] == 1 else 'letters'}?",
            text=EXPLAINED[letter_action],
            lines=[(row["channel"], row["count"]) for row in found["channels"]],
        )

    def _one(self, request: HttpRequest, object_id: str, service: Callable[..., None], verb: str) -> HttpResponse:
        letter = self.get_object(request, object_id)
        if letter is None:
            self.message_user(request, "This dead letter no longer exists.", messages.WARNING)
        elif request.method != "POST":
            return self._confirmation(request, letter, verb)
        else:
            self._each(request, [letter], service, f"{verb.lower()}n" if verb == "Redrive" else "discarded")
        return HttpResponseRedirect(reverse("admin:events_deadletter_changelist"))

    def _confirmation(self, request: HttpRequest, letter: DeadLetter, verb: str) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": letter,
            "title": f"{verb} this dead letter?",
            "verb": verb,
            "is_danger": verb == "Discard",
        }
        return TemplateResponse(request, "admin/events/deadletter/confirm.html", context)

    def _each(
        self, request: HttpRequest, selected: Iterable[DeadLetter], service: Callable[..., None], done_word: str
    ) -> None:
        done, refused = 0, []
        for letter in selected:
            try:
                service(letter, by=request.user.get_username())
            except ValidationError as error:
                refused.append(f"{letter.address}: {' '.join(error.messages)}")
            except ConnectionError:
                refused.append("The event log does not answer; the letters are kept. Try again.")
                break
            else:
                done += 1
        if done:
            self.message_user(request, f"{done} {'event' if done == 1 else 'events'} {done_word}.", messages.SUCCESS)
        for text in refused[:REFUSED_SHOWN]:
            self.message_user(request, text, messages.ERROR)
