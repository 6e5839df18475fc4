// The guide's poller of a long-running task, host and key aside. Prints the download URL.
const fetch = (url, init = {}) =>
  globalThis.fetch(url.replace("https://api.example.com", process.env.BASE_URL), {
    ...init,
    headers: { ...init.headers, Authorization: `Bearer ${process.env.KEY}` },
  });

// As it stands:
const response = await fetch("https://api.example.com/reports", {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ type: "quarterly", format: "pdf" }),
});

// 202 Accepted — task is processing
const { statusUrl } = await response.json();

// Poll for completion
const checkStatus = async () => {
  const status = await fetch(statusUrl);
  const result = await status.json();

  if (result.state === "completed") {
    return result.downloadUrl;
  }

  // Check again after a delay
  await new Promise((resolve) => setTimeout(resolve, 5000));
  return checkStatus();
};

console.log(await checkStatus());
