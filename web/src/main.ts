import "./styles/tokens.css";
import "./styles/base.css";
import { mount } from "svelte";
import App from "./App.svelte";

const theme = localStorage.getItem("legwork.theme");
if (theme) document.documentElement.dataset.theme = theme;

mount(App, { target: document.getElementById("app")! });
