// Reloads the page while an element says after how many seconds, as a job's page does until the job has ended.
const seconds = Number(document.querySelector("[data-reload]")?.dataset.reload);
if (seconds) setTimeout(() => location.reload(), seconds * 1000);
