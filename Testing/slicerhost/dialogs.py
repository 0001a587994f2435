"""Questions and messages, answered without a window: what the user would read is kept, answers come from a queue."""

import sys
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

Box = QtWidgets.QMessageBox
KINDS = {Box.Critical: "error", Box.Warning: "warning", Box.Question: "question"}
# The buttons that mean yes, dearest first; a box with none of them is only read.
ACCEPTING = (Box.Yes, Box.Ok, Box.YesToAll, Box.Save, Box.Retry, Box.Apply, Box.Open)
REFUSING = (Box.No, Box.Cancel, Box.Close, Box.Discard, Box.Abort)


class Conversation:
    """`messages`: (kind, text) that the user was shown; `answers`: what the user answers next.

    A question is answered by True (its accepting button, also where the queue is empty), False (its refusing button)
    or a standard button; a file dialog by a path, "" is Cancel and also the answer of an empty queue.
    """

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.answers: list[Any] = []
        self.shown_errors: list[BaseException] = []

    def clear(self) -> None:
        """Forget everything."""
        self.messages.clear()
        self.answers.clear()
        self.shown_errors.clear()

    def tell(self, kind: str, text: str) -> None:
        """Show a text; an exception that is being handled meanwhile counts as shown to the user."""
        self.messages.append((kind, text))
        error = sys.exc_info()[1]
        if error is not None:
            self.shown_errors.append(error)

    def ask(self, kind: str, text: str, buttons: Box.StandardButton) -> Box.StandardButton:
        """Show a box and answer it."""
        self.tell(kind, text)
        yes = [button for button in ACCEPTING if button & buttons]
        no = [button for button in REFUSING if button & buttons]
        if not (yes and no):
            return (yes + no + [Box.Ok])[0]
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, bool):
            return (yes if answer else no)[0]
        if not answer & buttons:
            raise ValueError(f"the question '{text}' has no button {answer}")
        return answer

    def path(self, title: str) -> str:
        """Answer a file dialog."""
        self.tell("file", title)
        return str(self.answers.pop(0)) if self.answers else ""


conversation = Conversation()


class QMessageBox(Box):
    """A message box that is never drawn; `qt.QMessageBox`."""

    def exec(self) -> Box.StandardButton:
        """Keep the text, answer from the queue."""
        return conversation.ask(KINDS.get(self.icon, "information"), self.text, self.standardButtons)

    exec_ = exec

    @staticmethod
    def question(parent, title, text, buttons=Box.Yes | Box.No, default=Box.NoButton):
        """Ask yes or no."""
        return conversation.ask("question", text, buttons)

    @staticmethod
    def information(parent, title, text, buttons=Box.Ok, default=Box.NoButton):
        """Tell."""
        return conversation.ask("information", text, buttons)

    @staticmethod
    def warning(parent, title, text, buttons=Box.Ok, default=Box.NoButton):
        """Warn."""
        return conversation.ask("warning", text, buttons)

    @staticmethod
    def critical(parent, title, text, buttons=Box.Ok, default=Box.NoButton):
        """Tell what went wrong."""
        return conversation.ask("error", text, buttons)


class ctkMessageBox(QMessageBox):
    """What slicer.util shows its messages with."""


class QFileDialog(QtWidgets.QFileDialog):
    """File dialogs that take their path from the answers; `qt.QFileDialog`."""

    @staticmethod
    def getExistingDirectory(parent=None, title="", folder="", options=None) -> str:
        """The next answer as a folder."""
        return conversation.path(title)

    @staticmethod
    def getOpenFileName(parent=None, title="", folder="", pattern="") -> str:
        """The next answer as a file to read."""
        return conversation.path(title)

    @staticmethod
    def getSaveFileName(parent=None, title="", folder="", pattern="") -> str:
        """The next answer as a file to write."""
        return conversation.path(title)


class QInputDialog(QtWidgets.QInputDialog):
    """A typed text taken from the answers; `qt.QInputDialog`."""

    @staticmethod
    def getText(parent, title, label, mode=QtWidgets.QLineEdit.Normal, text="") -> str:
        """The next answer; as in PythonQt only the text comes back, empty after Cancel."""
        return conversation.path(label)


class QDesktopServices(QtGui.QDesktopServices):
    """Opens nothing; `qt.QDesktopServices`."""

    @staticmethod
    def openUrl(url: QtCore.QUrl) -> bool:
        """Keep the address among the messages."""
        conversation.tell("open", url.toString())
        return True


REPLACED = (QMessageBox, QFileDialog, QInputDialog, QDesktopServices)
