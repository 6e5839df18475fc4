// The guide's EventSource client, host and key aside. Prints each notification that is displayed.
import { EventSource as Client } from "eventsource";

class EventSource extends Client {
  constructor(url) {
    const authorized = (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${process.env.KEY}` } });
    super(url.replace("https://api.example.com", process.env.BASE_URL), { fetch: authorized });
  }
}

const displayNotification = (notification) => console.log(JSON.stringify(notification));

// As it stands:
const source = new EventSource("https://api.example.com/v1/notifications");

source.addEventListener("message", (event) => {
  const notification = JSON.parse(event.data);
  displayNotification(notification);
});

source.addEventListener("error", () => {
  console.log("Connection lost. Browser will auto-reconnect.");
});

// The test asks when it is open.
source.addEventListener("open", () => console.log("open"));
