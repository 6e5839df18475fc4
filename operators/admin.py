"""What the admin's pages have in common: forms whose last check is the service itself, and deletions by services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html, format_html_join
from rest_framework.authtoken.models import TokenProxy
from unfold.admin import ModelAdmin
from unfold.decorators import action as unfold_action
from unfold.decorators import display as unfold_display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from operators.throttle import throttled_sign_in

Method = TypeVar("Method", bound=Callable[..., Any])

admin.site.login = throttled_sign_in(admin.site.login)  # type: ignore[method-assign]
admin.site.index_template = "operators/front_page.html"
admin.site.unregister(Group)
admin.site.unregister(User)
# A token is as good as a password, and the page would show it.
admin.site.unregister(TokenProxy)


def display(**said: Any) -> Callable[[Method], Method]:
    """Mark a method as a column or field: the theme's decorator, typed."""
    return cast("Callable[[Method], Method]", unfold_display(**said))


def action(**said: Any) -> Callable[[Method], Method]:
    """Mark a method as an action: the theme's decorator, typed."""
    return cast("Callable[[Method], Method]", unfold_action(**said))


class ServiceForm(forms.ModelForm):  # type: ignore[type-arg]
    """Hands what was typed to a service; what the service refuses is said at the field. It never saves a row itself."""

    by = ""
    """Who asks; set by the page."""

    def fields_for_service(self) -> dict[str, Any]:
        """Give the service's fields: all of a new object, of another those that were changed."""
        is_new = self.instance._state.adding
        return {name: self.cleaned_data[name] for name in self.cleaned_data if is_new or name in self.changed_data}

    def create(self, fields: dict[str, Any]) -> Any:
        """Make the object."""
        raise NotImplementedError

    def update(self, row: Any, fields: dict[str, Any]) -> Any:
        """Change the object."""
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
            self._tell(error)

    def _tell(self, error: ValidationError) -> None:
        named = error.message_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.messages}
        for path, messages_ in named.items():
            field = self._field_of(path)
            prefix = "" if path in (field, NON_FIELD_ERRORS) else f"{path}: "
            self.add_error(field, [prefix + message for message in messages_])

    def _field_of(self, path: str) -> str | None:
        """Give the field of the form that a path such as ``limits[0].per`` or ``handler.url`` is about."""
        for candidate in (path.replace(".", "_"), path.partition("[")[0].partition(".")[0]):
            if candidate in self.fields:
                return candidate
        return None


class ServiceAdmin(ModelAdmin):  # type: ignore[misc]
    """A page over services: forms are ServiceForms, and what is deleted is deleted by ``delete_row``."""

    delete_row: Callable[..., Any]
    list_fullwidth = True
    warn_unsaved_form = True
    list_filter_submit = False
    list_per_page = 50
    compressed_fields = True

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Give the form, made out to the operator."""
        form = super().get_form(request, obj, change=change, **kwargs)
        return type(form.__name__, (form,), {"by": request.user.get_username()})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Do nothing: the form's service has saved it."""

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """Delete by the service."""
        self.delete_row(obj, by=request.user.get_username())

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Delete each by the service: all of them or none."""
        with transaction.atomic():
            for obj in queryset:
                self.delete_model(request, obj)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Delete, or say why the service refuses."""
        return self._or_refused(
            request, lambda: super(ServiceAdmin, self).delete_view(request, object_id, extra_context)
        )

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """List, or act on what was selected, or say why a service refuses."""
        return self._or_refused(request, lambda: super(ServiceAdmin, self).changelist_view(request, extra_context))

    def _or_refused(self, request: HttpRequest, view: Callable[[], HttpResponse]) -> HttpResponse:
        try:
            return view()
        except ValidationError as error:
            self.message_user(request, " ".join(error.messages), messages.ERROR)
        except ConnectionError:
            self.message_user(request, "An engine does not answer; nothing was changed. Try again.", messages.ERROR)
        return HttpResponseRedirect(request.get_full_path())


class ReadOnlyAdmin(ServiceAdmin):
    """A page that shows and never writes."""

    warn_unsaved_form = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Never."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never."""
        return False


@admin.register(User)
class Users(UserAdmin, ModelAdmin):  # type: ignore[misc, type-arg]
    """Operators: who signs in here."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_staff", "is_superuser", "is_active", "last_login")
    list_filter = ("is_staff", "is_active")


def chips(values: Any) -> Any:
    """Show short texts side by side."""
    if not values:
        return "—"
    return format_html(
        '<div class="chips">{}</div>',
        format_html_join("", '<span class="chip">{}</span>', ((value,) for value in values)),
    )
