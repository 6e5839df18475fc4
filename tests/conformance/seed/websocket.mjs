// The guide's WebSocket subscriber, host and key aside. Prints each trade that reaches the dashboard.
import { WebSocket as Client } from "ws";

class WebSocket extends Client {
  constructor(url) {
    super(url.replace("wss://api.example.com", process.env.WS_URL), ["bearer", process.env.KEY]);
  }
}

const updateDashboard = (trade) => console.log(JSON.stringify(trade));

// As it stands:
const socket = new WebSocket("wss://api.example.com/v1/stream");

socket.addEventListener("open", () => {
  socket.send(JSON.stringify({ type: "subscribe", channel: "trades" }));
});

socket.addEventListener("message", (event) => {
  const trade = JSON.parse(event.data);
  updateDashboard(trade);
});
