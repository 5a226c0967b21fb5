(function () {
  "use strict";
  var data = JSON.parse(document.getElementById("data").textContent);
  // Apart, so that the recorded trips can be taken out of a page that is handed on.
  var recorded = JSON.parse(document.getElementById("recorded").textContent);
  var city = document.getElementById("city");
  var lines = document.getElementById("lines");
  var svg = "http://www.w3.org/2000/svg";
  var whole = city.getAttribute("viewBox").split(" ").map(Number);
  var at = 0;

  function show(layer) {
    city.querySelectorAll("[data-layer]").forEach(function (group) {
      group.toggleAttribute("hidden", group.dataset.layer !== layer);
    });
    var zones = layer === "zones";
    document.getElementById("legend-zones").hidden = !zones;
    document.getElementById("legend-use").hidden = zones;
  }

  function add(kind, attributes) {
    var element = document.createElementNS(svg, kind);
    Object.keys(attributes).forEach(function (name) { element.setAttribute(name, attributes[name]); });
    lines.appendChild(element);
  }

  function line(trip, name, style) {
    if (trip && trip.points) { add("polyline", { points: trip.points, "class": name, style: style || "" }); }
  }

  function ends(trip) {
    var points = trip.points.split(" ");
    var first = points[0].split(","), last = points[points.length - 1].split(",");
    var near = nearness();
    add("circle", { cx: first[0], cy: first[1], r: 60 * near });
    add("circle", { cx: last[0], cy: last[1], r: 95 * near });
  }

  function nearness() { return city.viewBox.baseVal.width / whole[2]; }

  function frame(trip) {
    var box = whole;
    if (document.getElementById("near").checked) {
      var xs = [], ys = [];
      [recorded[at]].concat(trip.runs).forEach(function (made) {
        if (!made || !made.points) { return; }
        made.points.split(" ").forEach(function (point) {
          var xy = point.split(",");
          xs.push(+xy[0]); ys.push(+xy[1]);
        });
      });
      if (!xs.length) { xs = [0, whole[2]]; ys = [0, whole[3]]; }
      var left = Math.min.apply(null, xs), right = Math.max.apply(null, xs);
      var top = Math.min.apply(null, ys), bottom = Math.max.apply(null, ys);
      var shape = whole[2] / whole[3];
      var wide = Math.min(Math.max((right - left) * 1.25, (bottom - top) * 1.25 * shape, whole[2] / 20), whole[2]);
      box = [(left + right - wide) / 2, (top + bottom - wide / shape) / 2, wide, wide / shape];
    }
    city.setAttribute("viewBox", box.join(" "));
    city.style.setProperty("--near", nearness());
  }

  function told(box, colour, name, trip, made) {
    var item = document.createElement("span");
    var bar = document.createElement("i");
    bar.className = "bar";
    bar.style.background = colour;
    item.appendChild(bar);
    item.appendChild(document.createTextNode(trip
      ? name + ": " + trip.km + " km, " + trip.minutes + " min, " + trip.roads + " roads"
        + (trip.dtw === undefined ? "" : "; DTW " + trip.dtw + " km, Hausdorff " + trip.hausdorff + " km, EDR " + trip.edr)
      : name + (made === false ? ": not shown, as it could be a recorded trip" : ": not asked for this trip")));
    box.appendChild(item);
  }

  function draw() {
    lines.replaceChildren();
    var box = document.getElementById("trip");
    box.replaceChildren();
    document.getElementById("which").textContent = "trip " + (at + 1) + " / " + data.trips.length;
    var trip = data.trips[at];
    frame(trip);
    var real = recorded[at];
    var shown = real || trip.runs.filter(function (made) { return made && made.points; })[0];
    if (real) {
      var when = document.createElement("span");
      when.textContent = "departure " + real.departure;
      box.appendChild(when);
    }
    if (document.getElementById("trips").checked && shown) {
      line(real, "halo");
      line(real, "real");
      trip.runs.forEach(function (made, k) {
        line(made, "made" + (k ? " dashed" : ""), "stroke:var(--run" + (k % 6 + 1) + ")");
      });
      ends(shown);
    }
    if (real) { told(box, "var(--ink)", "real", real); }
    trip.runs.forEach(function (made, k) { told(box, "var(--run" + (k % 6 + 1) + ")", data.names[k], made, data.made[k]); });
  }

  function step(by) {
    at = (at + by + data.trips.length) % data.trips.length;
    draw();
  }

  document.querySelectorAll("input[name=layer]").forEach(function (input) {
    input.addEventListener("change", function () { show(input.value); });
  });
  if (data.trips.length) {
    document.getElementById("previous").addEventListener("click", function () { step(-1); });
    document.getElementById("next").addEventListener("click", function () { step(1); });
    document.getElementById("trips").addEventListener("change", draw);
    document.getElementById("near").addEventListener("change", draw);
    city.setAttribute("tabindex", "0");
    city.addEventListener("keydown", function (event) {
      if (event.key === "ArrowLeft") { step(-1); } else if (event.key === "ArrowRight") { step(1); } else { return; }
      event.preventDefault();
    });
    draw();
  }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not(.long)").forEach(function (d) { d.dataset.was = d.open ? "1" : ""; d.open = true; });
  });
  window.addEventListener("afterprint", function () {
    document.querySelectorAll("details:not(.long)").forEach(function (d) { d.open = d.dataset.was === "1"; });
  });
})();
