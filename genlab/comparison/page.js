// Sorts a table by the column whose head is pressed, or that is chosen above it where the screen is too narrow for heads.
// Without it the page reads the same.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const titles = heads.map((head) => head.textContent);
  const sort = (column, descending) => {
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === "");  // empty cells last, either way
      const difference = a - b;
      const order = Number.isNaN(difference) ? a.localeCompare(b) : difference;
      return descending ? -order : order;
    });
    table.tBodies[0].append(...rows);
  };
  const button = (...content) => {
    const made = document.createElement("button");
    made.type = "button";
    made.append(...content);
    return made;
  };
  heads.forEach((head, column) => {
    if (!titles[column]) return;
    const press = button(...head.childNodes);
    head.append(press);
    press.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"));
  });
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", "sort by");
  titles.forEach((title, column) => title && choice.add(new Option(`sort by ${title}`, column)));
  const turn = button("\u2191\u2193");
  turn.setAttribute("aria-label", "other way round");
  const again = (descending) => sort(Number(choice.value), descending);
  choice.addEventListener("change", () => again(false));
  turn.addEventListener("click", () => again(heads[choice.value].getAttribute("aria-sort") === "ascending"));
  const bar = document.createElement("div");
  bar.className = "sorter";
  bar.append(choice, turn);
  table.before(bar);
}
