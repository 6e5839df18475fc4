"""Base classes of the admin's pages: forms that save by calling a service, and deletion by services."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.views.main import ERROR_FLAG, SEARCH_VAR
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join
from unfold.admin import ModelAdmin
from unfold.decorators import action as unfold_action
from unfold.decorators import display as unfold_display

from operators.filters import value_errors
from operators.sign_in import limited_password_change

Method = TypeVar("Method", bound=Callable[..., Any])

admin.site.password_change = limited_password_change(  # type: ignore[assignment, method-assign]
    admin.site.password_change
)
admin.site.index_template = "operators/front_page.html"


def display(**options: Any) -> Callable[[Method], Method]:
    """Mark a method as a column or field. This is the theme's decorator with types."""
    return cast("Callable[[Method], Method]", unfold_display(**options))


def action(**options: Any) -> Callable[[Method], Method]:
    """Mark a method as an action. This is the theme's decorator with types."""
    return cast("Callable[[Method], Method]", unfold_action(**options))


class ServiceForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form that saves by calling a service, and shows the service's errors at their fields."""

    by = ""
    """The operator; set by the page."""

    def fields_for_service(self) -> dict[str, Any]:
        """Return the arguments of the service: all fields of a new object, else those that have changed."""
        is_new = self.instance._state.adding
        return {name: self.cleaned_data[name] for name in self.cleaned_data if is_new or name in self.changed_data}

    def create(self, fields: dict[str, Any]) -> Any:
        """Create the object."""
        raise NotImplementedError

    def update(self, row: Any, fields: dict[str, Any]) -> Any:
        """Update the object."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        if self.errors:
            return
        try:
            fields = self.fields_for_service()
            if self.instance._state.adding:
                self.instance = self.create(fields)
            elif fields:
                self.instance = self.update(self.instance, fields)
        except ValidationError as error:
            self._add_errors(error)

    def _add_errors(self, error: ValidationError) -> None:
        errors = error.message_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.messages}
        for path, messages_ in errors.items():
            field = self._field_of(path)
            prefix = "" if path in (field, NON_FIELD_ERRORS) else f"{path}: "
            self.add_error(field, [prefix + message for message in messages_])

    def _field_of(self, path: str) -> str | None:
        """Return the form's field for a path such as ``limits[0].per`` or ``handler.url``, or None."""
        for candidate in (path.replace(".", "_"), path.partition("[")[0].partition(".")[0]):
            if candidate in self.fields:
                return candidate
        return None


class ServiceAdmin(ModelAdmin):  # type: ignore[misc]
    """An admin page that writes by services: its form is a ServiceForm, and ``delete_row`` deletes a row."""

    delete_row: Callable[..., Any]
    list_fullwidth = True
    warn_unsaved_form = True
    list_filter_submit = False
    list_per_page = 50
    compressed_fields = True

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form's class, bound to the operator."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"by": request.user.get_username()})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Do nothing: the form has already saved the object by a service."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete a row by the service."""
        self.delete_row(obj, by=request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete every row by the service, in one transaction."""
        with transaction.atomic():
            for obj in queryset:
                self.delete_model(request, obj)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Delete the object, or show why the service refuses to."""
        return self._run(request, lambda: super(ServiceAdmin, self).delete_view(request, object_id, extra_context))

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List the objects or run an action on the selected ones, or show why a service refuses to.

        A filter that is empty, repeated or malformed is refused: Django's own answer to it is the list of all objects.
        """
        if errors := self._filter_errors(request):
            return self._refusal(request, errors)
        answer = self._run(request, lambda: super(ServiceAdmin, self).changelist_view(request, extra_context))
        if answer.status_code == 302 and answer["Location"] == f"{request.path}?{ERROR_FLAG}=1":
            return self._refusal(request, {", ".join(request.GET): "Unknown or malformed filter."})
        return answer

    def ask(self, request: HttpRequest, rows: Any, *, title: str, text: str, lines: Iterable[tuple[str, Any]]) -> Any:
        """Return the page that asks whether to run the action on the selected rows, which it names."""
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "text": text,
            "lines": list(lines),
            "ids": [str(row_id) for row_id in rows],
            "action": request.POST.get("action", ""),
        }
        return TemplateResponse(request, "operators/question.html", context)

    def confirmed(self, request: HttpRequest) -> list[str] | None:
        """Return the ids that the question named, once it was confirmed; None before."""
        return request.POST["confirmed"].split(",") if request.POST.get("confirmed") else None

    def _filter_errors(self, request: HttpRequest) -> dict[str, str]:
        # An empty search selects everything, as its empty field says.
        errors = {name: text for name, text in value_errors(request.GET).items() if name != SEARCH_VAR}
        return {name: text for name, text in errors.items() if not self._is_listed_empty(name, request)}

    def _is_listed_empty(self, name: str, request: HttpRequest) -> bool:
        """Return whether it is the link of a list's filter to the rows in which the field is empty."""
        is_empty = name in self.list_filter and request.GET.getlist(name) == [""]
        return is_empty and self.model.objects.filter(**{name: ""}).exists()

    def _refusal(self, request: HttpRequest, errors: dict[str, str]) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "opts": self.opts, "title": "Bad filter", "errors": errors}
        return TemplateResponse(request, "operators/bad_filter.html", context, status=400)

    def _run(self, request: HttpRequest, view: Callable[[], HttpResponse]) -> HttpResponse:
        try:
            return view()
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
        except ConnectionError:
            self.message_user(
                request, "The database, Redis or NATS does not answer; nothing was changed. Try again.", messages.ERROR
            )
        return HttpResponseRedirect(request.get_full_path())


class ReadOnlyAdmin(ServiceAdmin):
    """A read-only admin page."""

    warn_unsaved_form = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return False."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False."""
        return False


def chips(values: Any) -> Any:
    """Render short texts side by side."""
    if not values:
        return "—"
    return format_html(
        '<div class="chips">{}</div>',
        format_html_join("", '<span class="chip">{}</span>', ((value,) for value in values)),
    )
